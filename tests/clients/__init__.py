"""The node judged from outside, by the clients that people have and by one that only we have.

`python3 -m clients SUITE --binary PATH` runs a suite; scripts/test runs them all. A suite starts
nodes of its own in temporary folders on free loopback ports, and ends only those.
"""
