import { setTimeout as sleep } from 'node:timers/promises'
import { EventSourceParserStream } from 'eventsource-parser/stream'
import type { Job, Registry } from './client.ts'
import { CliError, EXIT } from './exit.ts'
import { startProgress, type Progress } from './progress.ts'

const POLL_FIRST_MS = 250
const POLL_LAST_MS = 3_000
/** The stream has a heartbeat every 10 s; one that is silent for longer is dead. */
const SILENCE_MS = 30_000

/** Waits until the job has ended, over its event stream, or by asking again and again where there is none. */
export async function waitForJob(registry: Registry, id: string, label: string, quiet: boolean): Promise<Job> {
  const progress = startJobProgress(label, quiet)
  try {
    const streamed = await followEvents(registry, id, progress.show)
    if (streamed !== null && isOver(streamed)) return streamed
    for (let pause = POLL_FIRST_MS; ; pause = Math.min(POLL_LAST_MS, pause * 1.5)) {
      const job = await registry.getJob(id)
      progress.show(job)
      if (isOver(job)) return job
      await sleep(pause, undefined, { signal: registry.signal }).catch(() => registry.signal.throwIfAborted())
    }
  } finally {
    progress.stop()
  }
}

/** Throws unless the job has succeeded. */
export function requireSuccess(job: Job): void {
  if (job.state === 'succeeded') return
  const { code, message } = job.failure ?? { code: job.state, message: `it was ${job.state}` }
  throw new CliError(code === 'disk_full' ? EXIT.diskFull : EXIT.failure, code, `The ${job.kind} job ${job.id} of ${job.subject.reference} did not succeed: ${message.replace(/\.$/, '')}. \`portllm jobs show ${job.id}\` tells more.`, { details: { job } })
}

function isOver(job: Job): boolean {
  return job.state !== 'queued' && job.state !== 'running'
}

/** The last state seen before the stream ended or broke; null where there was none. */
async function followEvents(registry: Registry, id: string, show: (job: Job) => void): Promise<Job | null> {
  let last: Job | null = null
  let timer: NodeJS.Timeout | undefined
  try {
    const body = await registry.jobEvents(id)
    const events = body.pipeThrough(watchSilence()).pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).pipeThrough(new EventSourceParserStream())
    for await (const event of events) {
      if (event.event !== 'job') continue
      last = JSON.parse(event.data) as Job
      show(last)
      if (isOver(last)) break
    }
  } catch (error) {
    registry.signal.throwIfAborted()
    if (error instanceof CliError && error.exit !== EXIT.network && error.exit !== EXIT.failure) throw error
  } finally {
    clearTimeout(timer)
  }
  return last

  function watchSilence(): TransformStream<Uint8Array, Uint8Array> {
    return new TransformStream({
      start: (controller) => reset(controller),
      transform(chunk, controller) {
        reset(controller)
        controller.enqueue(chunk)
      },
    })
  }
  function reset(controller: TransformStreamDefaultController<Uint8Array>): void {
    clearTimeout(timer)
    timer = setTimeout(() => controller.error(new Error('the event stream went silent')), SILENCE_MS)
  }
}

/** One bar for each phase of a job. */
function startJobProgress(label: string, quiet: boolean): { show(job: Job): void; stop(): void } {
  let phase: string | null = null
  let bar: Progress | null = null
  return {
    show({ progress }) {
      if (progress === null) return
      if (progress.phase !== phase) {
        bar?.stop()
        phase = progress.phase
        bar = startProgress(`${label}: ${phase}`, progress.unit === 'bytes' ? 'bytes' : 'count', quiet)
      }
      bar?.update(progress.done, progress.total)
    },
    stop: () => bar?.stop(),
  }
}
