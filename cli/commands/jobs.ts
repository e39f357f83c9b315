import { Option, type Command } from 'commander'
import type { Job, JobQuery } from '../client.ts'
import { formatFields, formatTable } from '../format.ts'
import { requireSuccess, waitForJob } from '../job-wait.ts'
import { integerOption } from '../option-values.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

export function addJobs(program: Command): void {
  const group = program.command('jobs').summary('work that the registry is doing').description('Work that the registry is doing: verifying uploads (ingest), merging, analyzing, evaluating, fine-tuning and evolving.')
    .addHelpText('after', '\nExamples:\n  portllm jobs ls --state running\n  portllm jobs wait 2f0c3c1e-…')
  const listing = addCommand(group, 'ls', 'list jobs, newest first')
    .addOption(new Option('--state <state>', 'only these').choices(['queued', 'running', 'succeeded', 'failed', 'cancelled']))
    .addOption(new Option('--kind <kind>', 'only these').choices(['ingest', 'merge', 'analyze', 'evaluate', 'finetune', 'evolve']))
    .option('--limit <n>', 'how many', integerOption(1, 200), 20)
  answerWith(listing, list)
  answerWith(addCommand(group, 'show <id>', 'tell about one job'), show)
  answerWith(addCommand(group, 'wait <id>', 'wait until a job has ended; fails where it failed'), wait)
}

async function list(session: Session, { state, kind, limit }: CommonOptions & JobQuery): Promise<Answer> {
  const { items, nextCursor } = await (await session.connect()).listJobs({ state, kind, limit })
  if (nextCursor !== null) session.note('There are more: raise --limit.')
  return { json: items, text: formatTable(['ID', 'KIND', 'STATE', 'SUBJECT', 'CREATED'], (items as Job[]).map((job) => [job.id, job.kind, job.state, job.subject.reference, job.createdAt])) }
}

async function show(session: Session, _options: CommonOptions, id: string): Promise<Answer> {
  const job = await (await session.connect()).getJob(id)
  return { json: job, text: describe(job) }
}

async function wait(session: Session, _options: CommonOptions, id: string): Promise<Answer> {
  const job = await waitForJob(await session.connect(), id, 'Waiting', session.quiet)
  requireSuccess(job)
  return { json: job, text: describe(job) }
}

function describe({ id, kind, state, attempt, progress, failure, subject, createdAt, startedAt, endedAt }: Job): string {
  return formatFields([
    ['job', id], ['kind', kind], ['state', state], ['subject', `${subject.kind} ${subject.reference}`], ['attempt', attempt],
    ['progress', progress && `${progress.phase}: ${progress.done} of ${progress.total} ${progress.unit}`],
    ['failure', failure && `${failure.code}: ${failure.message}`],
    ['created', createdAt], ['started', startedAt], ['ended', endedAt],
  ])
}
