import { expect, it } from 'vitest'
import { ConfigError, readConfig } from './config.ts'

const AWS = { PORTLLM_S3_BUCKET: 'models', PORTLLM_S3_REGION: 'eu-central-1' }
const CEPH = { PORTLLM_S3_BUCKET: 'models', PORTLLM_S3_ENDPOINT: 'http://ceph:7480/', PORTLLM_S3_ACCESS_KEY_ID: 'id', PORTLLM_S3_SECRET_ACCESS_KEY: 'secret' }

it('says the bucket of blobs, or none', () => {
  expect(readConfig({}, {}).s3).toBeUndefined()
  expect(readConfig({}, { PORTLLM_S3_BUCKET: '' }).s3).toBeUndefined()
  expect(readConfig({}, AWS).s3).toEqual({ bucket: 'models', region: 'eu-central-1', pathStyle: false })
  expect(readConfig({}, CEPH).s3).toEqual({ bucket: 'models', endpoint: 'http://ceph:7480', region: 'us-east-1', accessKeyId: 'id', secretAccessKey: 'secret', pathStyle: true })
  expect(readConfig({}, { ...CEPH, PORTLLM_S3_PATH_STYLE: 'false', PORTLLM_S3_PUBLIC_ENDPOINT: 'https://s3.example/' }).s3).toMatchObject({ pathStyle: false, publicEndpoint: 'https://s3.example' })
})

it.each([
  ['PORTLLM_S3_BUCKET', { ...AWS, PORTLLM_S3_BUCKET: 'Models' }, 'is no name of a bucket'],
  ['PORTLLM_S3_BUCKET', { PORTLLM_S3_REGION: 'eu-central-1' }, 'is missing: PORTLLM_S3_REGION is set'],
  ['PORTLLM_S3_REGION', { PORTLLM_S3_BUCKET: 'models' }, "is missing: AWS's S3 needs it"],
  ['PORTLLM_S3_ENDPOINT', { ...CEPH, PORTLLM_S3_ENDPOINT: 'ceph:7480' }, 'must be an http:// or https:// URL'],
  ['PORTLLM_S3_SECRET_ACCESS_KEY', { ...AWS, PORTLLM_S3_ACCESS_KEY_ID: 'id' }, 'is missing'],
  ['PORTLLM_S3_ACCESS_KEY_ID', { ...AWS, PORTLLM_S3_SECRET_ACCESS_KEY: 'secret' }, 'is missing'],
  ['PORTLLM_S3_PATH_STYLE', { ...AWS, PORTLLM_S3_PATH_STYLE: 'maybe' }, 'must be true or false'],
])('names %s where it is wrong', (name, environment, why) => {
  expect(() => readConfig({}, environment)).toThrow(new ConfigError(`The environment variable ${name} ${why}`).message)
})
