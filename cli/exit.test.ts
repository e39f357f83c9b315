import { expect, test } from 'vitest'
import { AdapterError } from '../patch/adapter.ts'
import { ReferenceError } from '../patch/reference.ts'
import { SafetensorsError } from '../patch/safetensors.ts'
import { EXIT, explainError } from './exit.ts'

test.each([
  [Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', path: '/disk/model' }), EXIT.diskFull, /disk is full \(\/disk\/model\).*again/],
  [Object.assign(new Error('EDQUOT'), { code: 'EDQUOT' }), EXIT.diskFull, /disk is full/],
  [Object.assign(new Error('ENOENT: no such file'), { code: 'ENOENT', path: '/none' }), EXIT.notFound, /\/none/],
  [new ReferenceError('bad-name', 'The name is not allowed.'), EXIT.usage, /not allowed/],
  [new SafetensorsError('truncated', 'it is short'), EXIT.failure, /it is short/],
  [new AdapterError('invalid-json', 'no JSON'), EXIT.failure, /no JSON/],
  ['a string', EXIT.failure, /a string/],
])('%s', (error, exit, message) => {
  expect(explainError(error)).toMatchObject({ exit, message: expect.stringMatching(message) })
})
