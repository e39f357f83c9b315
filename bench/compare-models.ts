import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { headerLength, parseHeader } from '../patch/safetensors.ts'

interface Place {
  readonly file: string
  readonly offset: number
  readonly length: number
}

/** Elements of bf16 models whose bits differ, tensor by tensor and by name: the shards may be cut differently. */
export async function compareModels(one: string, other: string): Promise<{ differing: number; elements: number }> {
  const [first, second] = [await places(one), await places(other)]
  if (first.size !== second.size) throw new Error(`${one} has ${first.size} tensors, ${other} has ${second.size}`)
  let differing = 0
  let elements = 0
  for (const [name, place] of first) {
    const match = second.get(name)
    if (!match || match.length !== place.length) throw new Error(`${name} is not the same tensor in ${other}`)
    const [a, b] = [await read(place), await read(match)]
    elements += place.length / 2
    if (a.equals(b)) continue
    for (let i = 0; i < place.length; i += 2) if (a[i] !== b[i] || a[i + 1] !== b[i + 1]) differing++
  }
  return { differing, elements }
}

async function places(folder: string): Promise<Map<string, Place>> {
  const found = new Map<string, Place>()
  for (const file of (await readdir(folder)).filter((name) => name.endsWith('.safetensors'))) {
    const path = join(folder, file)
    const handle = await open(path, 'r')
    const { size } = await handle.stat()
    const prefix = Buffer.alloc(8)
    await handle.read(prefix, 0, 8, 0)
    const bytes = Buffer.alloc(headerLength(prefix, size))
    await handle.read(bytes, 0, bytes.length, 0)
    await handle.close()
    const { tensors, dataOffset } = parseHeader(bytes, size)
    for (const { name, begin, end } of tensors) found.set(name, { file: path, offset: dataOffset + begin, length: end - begin })
  }
  return found
}

async function read({ file, offset, length }: Place): Promise<Buffer> {
  const handle = await open(file, 'r')
  const bytes = Buffer.alloc(length)
  for (let done = 0; done < length; ) done += (await handle.read(bytes, done, length - done, offset + done)).bytesRead
  await handle.close()
  return bytes
}
