/** What of workerd's own API the Worker uses. */

/** Closes, or takes a chunk, only as long as exactly `length` bytes come of it; an answer of it has a Content-Length. */
declare class FixedLengthStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(length: number | bigint)
}

/** Bytes as they are, without JavaScript on their way. */
declare class IdentityTransformStream extends TransformStream<Uint8Array, Uint8Array> {}
