/** `node infra/create-bucket.ts`: makes the bucket of PORTLLM_S3_BUCKET where there is none. Any number may do so at once. */
import { CreateBucketCommand, HeadBucketCommand } from '@aws-sdk/client-s3'
import { createS3Client } from '../api/ports/s3-client.ts'
import { S3Environment } from '../api/s3-environment.ts'

const settings = S3Environment.parse(process.env)
if (settings === undefined) throw new Error('PORTLLM_S3_BUCKET is not set: there is no bucket to make.')
const client = createS3Client(settings)
const Bucket = settings.bucket
const isThere = () => client.send(new HeadBucketCommand({ Bucket })).then(() => true, () => false)
if (await isThere()) {
  console.log(`The bucket ${Bucket} is there already.`)
} else {
  await client.send(new CreateBucketCommand({ Bucket })).catch(async (error: Error) => {
    if (!(await isThere())) throw new Error(`The bucket ${Bucket} cannot be made: ${error.name}: ${error.message}`)
  })
  console.log(`The bucket ${Bucket} is made.`)
}
