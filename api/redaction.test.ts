import { expect, it } from 'vitest'
import { createRedactor } from './redaction.ts'

const redact = createRedactor(['p@ss "word"', 'abc'])

it.each([
  ['password is p@ss "word".', 'password is ***.'],
  [JSON.stringify({ text: 'p@ss "word"' }), '{"text":"***"}'],
  // Too short to be looked for everywhere; in its place in a URL it is found.
  ['abc and postgres://user:abc@host/db', 'abc and postgres://user:***@host/db'],
  ['postgres://user:un%40known@host:5432/db', 'postgres://user:***@host:5432/db'],
  ['Authorization: Bearer plm_0123abc', 'Authorization: Bearer ***'],
  ['token plm_0123abcXYZ is wrong', 'token plm_*** is wrong'],
  ['attempt eyJhbGciOi.eyJzdWIi.abc_-123 ended', 'attempt *** ended'],
  ['GET https://s3/b/k?X-Amz-Signature=abcdef&X-Amz-Date=1 failed', 'GET https://s3/b/k?X-Amz-Signature=***&X-Amz-Date=*** failed'],
  // What is no secret stays readable.
  ['http://127.0.0.1:8080/lab/base@v1 took 3 ms (a=1)', 'http://127.0.0.1:8080/lab/base@v1 took 3 ms (a=1)'],
  ['GET /v1/models/lab/base/v1/files/model.safetensors', 'GET /v1/models/lab/base/v1/files/model.safetensors'],
])('%s', (text, redacted) => {
  expect(redact(text)).toBe(redacted)
})
