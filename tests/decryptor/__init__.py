"""Opens a Kluis data directory without any of Kluis: Python's standard library and `cryptography`.

It is the proof that the format is what docs/KEYS.md and docs/FORMAT.md say, and the way out for a
tenant whose node is gone: given the directory and the passphrase, every object can be read.

`python3 -m decryptor appendix` checks the known answers; `python3 -m decryptor open …` reads an
object from rows that tests/rows printed.
"""
