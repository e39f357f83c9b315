import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ROOT } from '../setup/registry.ts'

interface Demo { code: number | null; output: string }

/** Runs the demo to its end; `onOutput` sees everything so far. */
function demo(args: readonly string[], onOutput: (text: string, stop: () => void) => void = () => {}): Promise<Demo> {
  const child = spawn(process.execPath, [`${ROOT}tests/demo/demo.ts`, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      onOutput(output, () => child.kill('SIGINT'))
    })
  }
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, output })))
}

test('the demo ends well after it has compared the bytes, and with --serve shows the page of the merged model', async () => {
  const data = await mkdtemp(join(tmpdir(), 'portllm-demo-'))
  try {
    let page: Promise<Response> | undefined
    const { code, output } = await demo(['--data', join(data, 'demo'), '--architecture', 'mistral', '--serve'], (text, stop) => {
      const url = /http:\S+\/derivations\/[0-9a-f]{64}/.exec(text)?.[0]
      if (page === undefined && url !== undefined && text.includes('Stop it')) page = fetch(url).finally(stop)
    })
    expect(output).toMatch(/verdict: \S*portable/)
    expect(output).toMatch(/identical\S* [0-9a-f]{16}… model.*\.safetensors/)
    expect(output).toMatch(/evolved \+ ported patch +\d+\.\d%/)
    expect((await page)?.status).toBe(200)
    expect(code).toBe(0)
  } finally {
    await rm(data, { recursive: true })
  }
})

test.each([['--bad', /--bad.*Usage/s], ['--architecture=nope', /nope.*llama/]])('the demo names what is wrong with %s', async (option, message) => {
  const { code, output } = await demo([option])
  expect([code, output]).toEqual([1, expect.stringMatching(message)])
  expect(output).not.toContain('node:internal')
})
