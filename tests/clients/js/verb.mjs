// One verb of S3 by the AWS SDK for JavaScript v3: `node verb.mjs JOB`, with JOB as JSON.
// The address and the credentials come from the variables that every AWS client reads.
import { createReadStream, createWriteStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";

const job = JSON.parse(process.argv[2]);
// The packages lie in a cache and not beside this file.
const require = createRequire(join(job.modules, "package.json"));
const {
  DeleteObjectCommand,
  GetObjectCommand,
  PutObjectCommand,
  S3Client,
  paginateListObjectsV2,
} = require("@aws-sdk/client-s3");
const { Upload } = require("@aws-sdk/lib-storage");
const { getSignedUrl } = require("@aws-sdk/s3-request-presigner");

const client = new S3Client({ forcePathStyle: true, maxAttempts: 1 });
const at = { Bucket: job.bucket, Key: job.key };

const verbs = {
  async put() {
    await client.send(new PutObjectCommand({ ...at, Body: await readFile(job.file) }));
  },
  async get() {
    const reply = await client.send(new GetObjectCommand({ ...at, Range: job.range }));
    await pipeline(reply.Body, createWriteStream(job.file));
    // The same bytes must come by a presigned address, which any HTTP client can fetch.
    const url = await getSignedUrl(client, new GetObjectCommand({ ...at, Range: job.range }));
    const headers = job.range ? { Range: job.range } : {};
    const plain = await fetch(url, { headers });
    if (!plain.ok) throw new Error(`presigned GET answers ${plain.status}: ${await plain.text()}`);
    const other = Buffer.from(await plain.arrayBuffer());
    if (!other.equals(await readFile(job.file))) throw new Error("presigned GET gave other bytes");
  },
  async putParts() {
    const params = { ...at, Body: createReadStream(job.file) };
    await new Upload({ client, params, partSize: 8 << 20, queueSize: 2 }).done();
  },
  async list() {
    const names = [];
    const pages = paginateListObjectsV2({ client }, { Bucket: job.bucket, Prefix: job.prefix });
    for await (const page of pages) for (const entry of page.Contents ?? []) names.push(entry.Key);
    console.log(JSON.stringify(names));
  },
  async putIfAbsent() {
    const params = { ...at, Body: await readFile(job.file), IfNoneMatch: "*" };
    try {
      await client.send(new PutObjectCommand(params));
    } catch (refusal) {
      if (refusal.name !== "PreconditionFailed") throw refusal;
    }
  },
  async delete() {
    await client.send(new DeleteObjectCommand(at));
  },
};

await verbs[job.verb]();
