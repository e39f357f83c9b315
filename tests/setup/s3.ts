import { randomUUID } from 'node:crypto'
import { AbortMultipartUploadCommand, CreateBucketCommand, DeleteBucketCommand, DeleteObjectCommand, ListMultipartUploadsCommand, paginateListObjectsV2 } from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import { createS3Client, type S3Settings } from '../../api/ports/s3-client.ts'

export interface TestBucket {
  readonly settings: S3Settings
  /** Empties it, and removes it. */
  remove(): Promise<void>
}

/** A bucket of its own on the S3 of PORTLLM_TEST_S3_*, which tests/setup/server-deployment.ts starts where none is named. */
export async function createBucket(): Promise<TestBucket> {
  const settings = { ...readTestS3(), bucket: `portllm-test-${randomUUID()}` }
  const client = createS3Client(settings)
  const Bucket = settings.bucket
  await client.send(new CreateBucketCommand({ Bucket }))
  return {
    settings,
    async remove() {
      const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket }))
      for (const { Key, UploadId } of Uploads) await client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId }))
      for await (const { Contents = [] } of paginateListObjectsV2({ client }, { Bucket })) {
        await pLimit(8).map(Contents, ({ Key }) => client.send(new DeleteObjectCommand({ Bucket, Key })))
      }
      await client.send(new DeleteBucketCommand({ Bucket }))
    },
  }
}

function readTestS3(): Omit<S3Settings, 'bucket'> {
  const { PORTLLM_TEST_S3_ENDPOINT: endpoint, PORTLLM_TEST_S3_REGION: region, PORTLLM_TEST_S3_ACCESS_KEY_ID: accessKeyId, PORTLLM_TEST_S3_SECRET_ACCESS_KEY: secretAccessKey, PORTLLM_TEST_S3_PATH_STYLE: pathStyle } = process.env
  if (endpoint === undefined || accessKeyId === undefined || secretAccessKey === undefined) throw new Error('PORTLLM_TEST_S3_ENDPOINT, _ACCESS_KEY_ID and _SECRET_ACCESS_KEY name the S3 of the tests; run them with --project server, which starts one.')
  return { endpoint, region: region ?? 'us-east-1', accessKeyId, secretAccessKey, pathStyle: pathStyle !== 'false' }
}
