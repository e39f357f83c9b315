import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { installDebianPackages } from './debian-packages.ts'

let found: string | undefined

/** Path of a clang++ with libFuzzer and the sanitizers; installed from Debian where it is missing and this is root. */
export function clangWithFuzzer(): string {
  found ??= search()
  if (found === undefined) {
    installDebianPackages('clang', 'libclang-rt-dev')
    found = search()
  }
  if (found === undefined) throw new Error('These tests need clang with libFuzzer. Install it: apt-get install clang libclang-rt-dev')
  return found
}

function search(): string | undefined {
  const asked = spawnSync('clang++', ['-print-resource-dir'], { encoding: 'utf8' })
  if (asked.status !== 0) return undefined
  const resources = asked.stdout.trim()
  const architecture = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
  const names = [join('lib', 'linux', `libclang_rt.fuzzer-${architecture}.a`), join('lib', `${architecture}-unknown-linux-gnu`, 'libclang_rt.fuzzer.a')]
  return names.some((name) => existsSync(join(resources, name))) ? 'clang++' : undefined
}
