import { startCeph } from './ceph.ts'
import { startPostgres } from './postgres.ts'

const stops: (() => Promise<void>)[] = []

/**
 * Once for a run of vitest: a real PostgreSQL and a real S3, told to every test by the environment. Those that the environment
 * names already are used instead.
 */
export async function setup(): Promise<void> {
  const startDatabase = async () => {
    if (process.env['PORTLLM_TEST_POSTGRES_URL'] !== undefined) return
    const postgres = await startPostgres()
    stops.push(postgres.stop)
    process.env['PORTLLM_TEST_POSTGRES_URL'] = postgres.url('postgres')
  }
  const startS3 = async () => {
    if (process.env['PORTLLM_TEST_S3_ENDPOINT'] !== undefined) return
    const ceph = await startCeph()
    stops.push(ceph.stop)
    Object.assign(process.env, { PORTLLM_TEST_S3_ENDPOINT: ceph.endpoint, PORTLLM_TEST_S3_ACCESS_KEY_ID: ceph.accessKeyId, PORTLLM_TEST_S3_SECRET_ACCESS_KEY: ceph.secretAccessKey })
  }
  await Promise.all([startDatabase(), startS3()])
}

export async function teardown(): Promise<void> {
  await Promise.all(stops.splice(0).map((stop) => stop()))
}
