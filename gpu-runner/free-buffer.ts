/**
 * Gives the memory of a large buffer back at once. V8 gets to those that have lived a while only at its next major
 * collection, and counts little of what lies outside its heap. Nothing may read or write the buffer any more.
 */
export function freeBuffer(bytes: Uint8Array<ArrayBuffer>): void {
  bytes.buffer.transfer(0)
}
