import { open } from 'node:fs/promises'
import { headerLength, parseHeader, SafetensorsError, type SafetensorsHeader } from '../patch/safetensors.ts'

/** Header of a safetensors file on disk. Errors name the file. */
export async function readSafetensorsHeader(absolute: string, shown: string = absolute): Promise<SafetensorsHeader> {
  const file = await open(absolute, 'r')
  try {
    const { size } = await file.stat()
    const first = Buffer.alloc(8)
    const { bytesRead } = await file.read(first, 0, 8, 0)
    const bytes = Buffer.alloc(headerLength(first.subarray(0, bytesRead), size))
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead: count } = await file.read(bytes, done, bytes.length - done, done)
      if (count === 0) throw new SafetensorsError('truncated', 'the file became shorter while it was read')
      done += count
    }
    return parseHeader(bytes, size)
  } catch (error) {
    if (error instanceof SafetensorsError) error.message = `${shown} is not a sound safetensors file: ${error.message}. Save or download it again.`
    throw error
  } finally {
    await file.close()
  }
}
