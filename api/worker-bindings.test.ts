import { describe, expect, it } from 'vitest'
import { readBindings } from './worker-bindings.ts'

const ENV = {
  DATABASE: { connectionString: 'postgres://user:secret@a.hyperdrive.local/x' },
  DATABASE_CACHED: { connectionString: 'postgres://user:secret@b.hyperdrive.local/x' },
  RATE_LIMIT: { limit: async () => ({ success: true }) },
  PORTLLM_PUBLIC_URL: 'https://registry.example.com/',
  PORTLLM_S3_BUCKET: 'portllm',
  PORTLLM_S3_ENDPOINT: 'https://account.r2.cloudflarestorage.com',
  PORTLLM_S3_ACCESS_KEY_ID: 'key',
  PORTLLM_S3_SECRET_ACCESS_KEY: 'hidden',
}

describe('the bindings of the Worker', () => {
  it('are read once', () => {
    const bindings = readBindings(ENV)
    expect(bindings).toMatchObject({ PORTLLM_PUBLIC_URL: 'https://registry.example.com', s3: { bucket: 'portllm', secretAccessKey: 'hidden' } })
    expect(bindings.RATE_LIMIT).toBe(ENV.RATE_LIMIT)
    expect(readBindings(ENV)).toBe(bindings)
  })

  it.each([
    [{ DATABASE: undefined }, /DATABASE must be a Hyperdrive binding/],
    [{ DATABASE_CACHED: 'postgres://user:secret@x/y' }, /DATABASE_CACHED must be a Hyperdrive binding/],
    [{ RATE_LIMIT: {} }, /RATE_LIMIT must be a rate limit binding/],
    [{ PORTLLM_PUBLIC_URL: 'registry.example.com' }, /PORTLLM_PUBLIC_URL must be an http/],
    [{ PORTLLM_S3_BUCKET: undefined }, /PORTLLM_S3_BUCKET/],
    [{ PORTLLM_S3_SECRET_ACCESS_KEY: undefined }, /PORTLLM_S3_SECRET_ACCESS_KEY/],
    [{ PORTLLM_S3_ACCESS_KEY_ID: undefined, PORTLLM_S3_SECRET_ACCESS_KEY: undefined }, /PORTLLM_S3_ACCESS_KEY_ID/],
  ])('that are wrong are named, without their values: %j', (wrong, message) => {
    const read = () => readBindings({ ...ENV, ...wrong })
    expect(read).toThrow(message)
    expect(read).not.toThrow(/secret@|hidden/)
  })
})
