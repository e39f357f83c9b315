import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { installDebianPackages } from '../tests/setup/debian-packages.ts'
import { freePort } from '../tests/setup/free-port.ts'

export interface Nginx { readonly url: string; stop(): Promise<void> }

/** nginx from Debian, on a free loopback port, giving out a folder as it does by default: sendfile, one worker for each processor. */
export async function startNginx(folder: string, work: string): Promise<Nginx> {
  const missing = () => spawnSync('nginx', ['-v']).error !== undefined
  if (missing()) installDebianPackages('nginx-light')
  if (missing()) throw new Error('This bench needs nginx. Install it: apt-get install nginx-light')
  await mkdir(work, { recursive: true })
  const port = await freePort()
  const config = join(work, 'nginx.conf')
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${join(work, name)};`).join(' ')
  await writeFile(config, `
    ${process.getuid?.() === 0 ? 'user root;' : ''} daemon off; worker_processes auto; pid ${join(work, 'pid')}; error_log stderr error;
    events {}
    http { access_log off; sendfile on; tcp_nopush on; ${temporary} server { listen 127.0.0.1:${port}; root ${folder}; } }
  `)
  const child = spawn('nginx', ['-c', config, '-p', work, '-e', 'stderr'], { stdio: ['ignore', 'inherit', 'inherit'] })
  const url = `http://127.0.0.1:${port}`
  for (let tries = 0; !(await fetch(url).then(() => true, () => false)); tries++) {
    if (tries > 100 || child.exitCode !== null) throw new Error('nginx did not start')
    await sleep(50)
  }
  return {
    url,
    async stop() {
      const closed = once(child, 'close')
      child.kill('SIGTERM')
      await closed
    },
  }
}
