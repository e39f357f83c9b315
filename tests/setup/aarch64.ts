import { spawnSync } from 'node:child_process'
import { installDebianPackages } from './debian-packages.ts'

/** Commands that make programs for 64-bit ARM and run them on this machine. */
export interface Aarch64 {
  readonly compiler: string
  /** What stands before the program's path. */
  readonly run: readonly string[]
}

/** On an ARM machine its own compiler; elsewhere a cross compiler and QEMU, from Debian where they are missing and this is root. */
export function aarch64(): Aarch64 {
  if (process.arch === 'arm64') return { compiler: 'c++', run: [] }
  const tools = { compiler: 'aarch64-linux-gnu-g++', run: ['qemu-aarch64'] }
  const missing = () => [tools.compiler, ...tools.run].filter((command) => spawnSync(command, ['--version']).status !== 0)
  if (missing().length > 0) installDebianPackages('g++-aarch64-linux-gnu', 'libc6-dev-arm64-cross', 'qemu-user')
  if (missing().length > 0) throw new Error(`These tests need ${missing().join(' and ')}. Install them: apt-get install g++-aarch64-linux-gnu qemu-user`)
  return tools
}
