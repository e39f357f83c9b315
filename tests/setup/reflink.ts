import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { installDebianPackages } from './debian-packages.ts'

export interface ReflinkDisk {
  readonly folder: string
  unmount(): Promise<void>
}

/** An XFS file system, which shares blocks between files, on a loop device; null where this user cannot mount one. */
export async function mountReflinkDisk(megabytes: number): Promise<ReflinkDisk | null> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return null
  if (spawnSync('mkfs.xfs', ['-V']).status !== 0) installDebianPackages('xfsprogs')
  const own = await mkdtemp(join(tmpdir(), 'portllm-reflink-'))
  const [image, folder] = [join(own, 'image'), join(own, 'disk')]
  await mkdir(folder)
  const file = await open(image, 'w')
  // XFS wants 300 MB at least; the image is sparse.
  await file.truncate(Math.max(megabytes, 320) * 2 ** 20)
  await file.close()
  const made = spawnSync('mkfs.xfs', ['-q', '-m', 'reflink=1', image]).status === 0 && spawnSync('mount', ['-o', 'loop', image, folder]).status === 0
  const remove = () => rm(own, { recursive: true, force: true })
  if (!made) {
    await remove()
    return null
  }
  return {
    folder,
    async unmount() {
      spawnSync('umount', [folder])
      await remove()
    },
  }
}
