import { S3Client, S3ServiceException } from '@aws-sdk/client-s3'
import { FetchHttpHandler } from '@smithy/fetch-http-handler'

/** Of every object: what browsers only save, whatever a client says that it sends. */
export const OBJECT_TYPE = 'application/octet-stream'

export interface S3Settings {
  /** Absent: AWS's own. */
  readonly endpoint?: string | undefined
  /** How clients and runners reach the store, where that is another address than ours. */
  readonly publicEndpoint?: string | undefined
  readonly region: string
  readonly bucket: string
  /** Absent, with the secret: those of the machine's role. */
  readonly accessKeyId?: string | undefined
  readonly secretAccessKey?: string | undefined
  /** The bucket is named in the path of URLs, not in their host. */
  readonly pathStyle: boolean
  /** It compares a body with the checksum in a signed header, and only there: not with the signed hash of a body. Absent: as its host is known to. */
  readonly checksums?: boolean | undefined
}

/**
 * The client of a store, with the checksums that every store knows: the SDK's newer ones are refused by some. It uses
 * `fetch`, on Node too: bodies are then web streams that wait for their reader and end with their signal.
 */
export function createS3Client({ region, endpoint, pathStyle, accessKeyId, secretAccessKey }: S3Settings): S3Client {
  return new S3Client({
    region,
    ...(endpoint !== undefined && { endpoint }),
    forcePathStyle: pathStyle,
    ...(accessKeyId !== undefined && secretAccessKey !== undefined && { credentials: { accessKeyId, secretAccessKey } }),
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: new FetchHttpHandler({ customFetch: fetchForRetries }),
  })
}

/** Keeps responses as long as their bodies: Node's `fetch` silently ends the body of one that was garbage-collected before anybody read. */
const responses = new WeakMap<ReadableStream, Response>()

/** The SDK tries again what it knows as trouble of the network; what `fetch` says of it, it does not know. */
async function fetchForRetries(request: Request | string | URL): Promise<Response> {
  try {
    const response = await fetch(request)
    if (response.body !== null) responses.set(response.body, response)
    return response
  } catch (error) {
    throw request instanceof Request && request.signal.aborted ? error : Object.assign(error as Error, { $retryable: {} })
  }
}

/** Whether there is no such object or upload; a bucket that is not there is another error. */
export function isMissing(error: unknown): boolean {
  return error instanceof S3ServiceException && error.$metadata.httpStatusCode === 404 && error.name !== 'NoSuchBucket'
}
