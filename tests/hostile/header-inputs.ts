import fc from 'fast-check'
import { fileStart, hostileHeader, ODD_BYTES, type FileStart } from './hostile-header.ts'

const SOUND = '{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}'

/** Wrong in ways that reach no line of their own, so that libFuzzer would not keep them. */
const WRONG = [
  '{"__metadata__":{"a":"","a":""}}', '{"__metadata__":{"\\u0061":"","a":""}}', '{"__metadata__":{},"__metadata__":{}}', '{"__metadata__":{"\\ud800\\u0041":""}}', '{"__metadata__":{"\\ud800\\ud800":""}}',
  '{"__metadata__":{"\\udc00":""}}', '{"__metadata__":{"\\ud83d\\ude00":"","\u{1f600}":""}}', '{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[],"data_offsets":[1,2]}}',
]

/** Inputs of the fuzz target `header` that libFuzzer starts from beside its corpus. */
export function headerInputs(): Buffer[] {
  const at = SOUND.indexOf('"b"') + 2
  const sound = Buffer.from(SOUND)
  const starts: FileStart[] = [
    fileStart(sound, 9),
    ...WRONG.map((json) => fileStart(json, json.includes('dtype') ? 2 : 0)),
    ...ODD_BYTES.map((odd) => fileStart(Buffer.concat([sound.subarray(0, at), Buffer.from(odd), sound.subarray(at)]), 9)),
    // The header claims its whole length, but the bytes that are there end before.
    ...Array.from(sound.keys(), (end) => fileStart(sound.subarray(0, end), 9 + sound.length - end, BigInt(sound.length))),
    ...fc.sample(hostileHeader, { numRuns: 300, seed: 7 }),
  ]
  return starts.flatMap(({ bytes, fileSize }) => {
    const dataLength = fileSize - bytes.byteLength
    if (dataLength < 0 || dataLength > 0xffff) return []
    return [Buffer.concat([Uint8Array.of(1, dataLength & 255, dataLength >> 8), bytes])]
  })
}
