import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { cp, mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { basename, dirname, isAbsolute, join, relative } from 'node:path'
import { installDebianPackages } from '../setup/debian-packages.ts'
import { ROOT } from '../setup/registry.ts'
import { createIgnore, readDockerfile, readPairs, type Stage } from './dockerfile.ts'

/** What `docker build` would make, as a folder. */
export interface Image {
  readonly root: string
  readonly environment: Readonly<Record<string, string>>
  readonly workdir: string
  readonly user: string
  readonly entrypoint: readonly string[]
  readonly command: readonly string[]
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** How this machine reaches its registries; an image builder elsewhere has its own. */
const CERTIFICATES = '/etc/ssl/certs/ca-certificates.crt'

/**
 * Runs the steps of a Dockerfile up to `target`, each for real and in a root of its own (debootstrap, chroot), in place of a
 * Docker engine. Needs root. `folder` takes the roots, `cache` the base that they begin with.
 */
export async function buildImage(dockerfile: string, { target, folder, cache }: { target: string | null; folder: string; cache: string }): Promise<Image> {
  const stages = await readDockerfile(join(ROOT, dockerfile))
  const keep = createIgnore(await readFile(join(ROOT, `${dockerfile}.dockerignore`), 'utf8'))
  const built = new Map<string, Image>()
  const last = target === null ? stages.at(-1)! : stages.find(({ name }) => name === target)!
  async function build(stage: Stage): Promise<Image> {
    const key = stage.name ?? 'last'
    const known = built.get(key)
    if (known !== undefined) return known
    const root = join(folder, `${dockerfile.replaceAll('/', '-')}-${key}`)
    await rm(root, { recursive: true, force: true })
    await must('cp', ['-a', '--reflink=auto', await baseRoot(stage.base, cache), root])
    const from = async (name: string) => (await build(stages.find((other) => other.name === name)!)).root
    const image = await runStage(stage, { root, from, keep })
    built.set(key, image)
    return image
  }
  return build(last)
}

async function runStage({ instructions }: Stage, { root, from, keep }: { root: string; from: (name: string) => Promise<string>; keep: (path: string) => boolean }): Promise<Image> {
  const image = { root, environment: { PATH } as Record<string, string>, workdir: '/', user: '0:0', entrypoint: [] as string[], command: [] as string[] }
  for (const { name, text } of instructions) {
    console.log(`  ${name} ${text}`)
    if (name === 'WORKDIR') await mkdir(join(root, (image.workdir = text)), { recursive: true })
    else if (name === 'ENV') for (const [variable, value] of readPairs(text)) image.environment[variable] = value
    else if (name === 'USER') image.user = text
    else if (name === 'ENTRYPOINT') image.entrypoint = JSON.parse(text)
    else if (name === 'CMD') image.command = JSON.parse(text)
    else if (name === 'RUN') await runInRoot(image, text)
    else if (name === 'COPY') await copy(image, text, { from, keep })
    else if (name !== 'EXPOSE') throw new Error(`${name} is not understood`)
  }
  return image
}

async function runInRoot({ root, environment, workdir }: { root: string; environment: Record<string, string>; workdir: string }, command: string): Promise<void> {
  await cp('/etc/resolv.conf', join(root, 'etc/resolv.conf'))
  await mkdir(join(root, dirname(CERTIFICATES)), { recursive: true })
  await cp(CERTIFICATES, join(root, CERTIFICATES))
  const script = 'mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$0" sh -c "cd $1 && $2"'
  await must('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script, root, workdir, command], { env: { HOME: '/root', NODE_EXTRA_CA_CERTS: CERTIFICATES, DEBIAN_FRONTEND: 'noninteractive', ...environment } })
  // The image that a builder elsewhere makes does not have them.
  await rm(join(root, CERTIFICATES))
}

/** Docker copies what is in a folder, and a file into a place that ends with a slash or takes several. */
async function copy({ root, workdir }: { root: string; workdir: string }, text: string, { from, keep }: { from: (name: string) => Promise<string>; keep: (path: string) => boolean }): Promise<void> {
  const [, stage, paths] = /^(?:--from=(\S+) )?(.*)$/.exec(text)!
  const names = paths!.split(/ +/)
  const to = names.pop()!
  const target = join(root, isAbsolute(to) ? to : join(workdir, to))
  for (const name of names) {
    const source = join(stage === undefined ? ROOT : await from(stage), name)
    const isFolder = (await stat(source)).isDirectory()
    const destination = !isFolder && to.endsWith('/') ? join(target, basename(name)) : target
    await mkdir(dirname(destination), { recursive: true })
    if (stage !== undefined) await must('cp', ['-a', '--reflink=auto', isFolder ? `${source}/.` : source, destination])
    else for (const file of await filesOf(source, keep)) await cp(join(ROOT, file), isFolder ? join(destination, relative(source, join(ROOT, file))) : destination)
  }
}

/** Of the working tree, by their path in it: what git knows or would take, less what the .dockerignore leaves out. */
async function filesOf(source: string, keep: (path: string) => boolean): Promise<string[]> {
  const listed = await read('git', ['-C', ROOT, 'ls-files', '--cached', '--others', '--exclude-standard', '--', source])
  return listed.split('\n').filter((file) => file !== '' && existsSync(join(ROOT, file)) && keep(file))
}

/** Debian 12 with Node and npm, as `node:VERSION-bookworm-slim` has them. */
async function baseRoot(tag: string, cache: string): Promise<string> {
  const [, version] = /^node:([\d.]+)-bookworm-slim$/.exec(tag) ?? []
  if (version !== process.versions.node) throw new Error(`${tag} cannot be made here: only node:${process.versions.node}-bookworm-slim can`)
  const root = join(cache, `node-${version}-bookworm`)
  if (existsSync(root)) return root
  const making = `${root}.making`
  await rm(making, { recursive: true, force: true })
  await mkdir(cache, { recursive: true })
  installDebianPackages('debootstrap')
  console.log(`  debootstrap: ${tag}`)
  await must('debootstrap', ['--variant=minbase', 'bookworm', making], { stdio: ['ignore', 'ignore', 'inherit'] })
  const local = join(making, 'usr/local')
  await cp(process.execPath, join(local, 'bin/node'))
  const npm = (await read('sh', ['-c', 'readlink -f "$(command -v npm)"'])).trim()
  await cp(dirname(dirname(npm)), join(local, 'lib/node_modules/npm'), { recursive: true })
  await symlink('../lib/node_modules/npm/bin/npm-cli.js', join(local, 'bin/npm'))
  await rename(making, root)
  return root
}

function must(command: string, args: readonly string[], options: SpawnOptions = {}): Promise<void> {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'], ...options })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${command} ${args.join(' ')} ended with ${code}`))))
  })
}

async function read(command: string, args: readonly string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  for await (const chunk of child.stdout) text += chunk
  return text
}

export interface ContainerOptions {
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly user?: string | undefined
  /** As Compose writes them: `/tmp:size=256m,mode=1777`. */
  readonly tmpfs?: readonly string[] | undefined
  /** Folders of this machine by their place in the container. */
  readonly volumes?: Readonly<Record<string, string>> | undefined
  /** Names of the other services: all are on the loopback of one network namespace. */
  readonly hosts: readonly string[]
  readonly stdio?: SpawnOptions['stdio']
}

/** Starts a command in the image as Compose would: the image read-only, its own user, its own environment and no privileges. */
export async function startContainer(image: Image, { command, environment, user = image.user, tmpfs = [], volumes = {}, hosts, stdio = 'inherit' }: ContainerOptions): Promise<ChildProcess> {
  const { root } = image
  await writeFile(join(root, 'etc/hosts'), `127.0.0.1 localhost ${hosts.join(' ')}\n`)
  for (const place of [...tmpfs.map((text) => text.split(':')[0]!), ...Object.keys(volumes)]) await mkdir(join(root, place), { recursive: true })
  const mounts = [
    'mount --bind "$0" "$0"',
    'mount -o remount,ro,bind "$0"',
    ...tmpfs.map((text) => text.split(':')).map(([place, options]) => `mount -t tmpfs -o ${options} tmpfs "$0${place}"`),
    ...Object.entries(volumes).map(([place, folder]) => `mount --bind "${folder}" "$0${place}"`),
    'mount --rbind /dev "$0/dev"',
    'mount -t proc proc "$0/proc"',
  ]
  const script = `${mounts.join(' && ')} && exec setpriv --no-new-privs chroot --userspec=${user} --groups= "$0" /bin/sh -c 'cd ${image.workdir} && exec "$@"' sh "$@"`
  return spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script, root, ...image.entrypoint, ...command], { stdio, env: { ...image.environment, ...environment } })
}
