import { bodyLimit } from 'hono/body-limit'
import { ApiError } from '../errors.ts'

/** Of a runner's report: the manifest of some hundred thousand tensors fits. */
export const MAX_RUNNER_JSON_BYTES = 64 * 1024 * 1024
/** Of every other JSON body: 10,000 file entries fit. */
export const MAX_CLIENT_JSON_BYTES = 4 * 1024 * 1024

export function jsonBodyLimit(maxSize: number) {
  return bodyLimit({
    maxSize,
    onError: () => {
      throw new ApiError('body_too_large', `The request body is larger than ${maxSize} bytes. Weights are not sent in it: PUT each file to the URL that the upload names.`)
    },
  })
}
