import { openAsBlob } from 'node:fs'
import { commitIter, createRepo, HubApiError, type CommitOperation } from '@huggingface/hub'
import { CliError, EXIT } from './exit.ts'
import { isNetworkError } from './network.ts'
import { startProgress } from './progress.ts'
import { publishableFiles } from './publishable-files.ts'
import type { Session } from './session.ts'

const HUGGING_FACE = 'https://huggingface.co'

export interface HubPlace {
  /** `organization/name`. */
  readonly repository: string
  readonly endpoint: URL
  /** Never printed. */
  readonly token: string
  readonly isPrivate: boolean
}

/** Where to push: the endpoint of the option, else HF_ENDPOINT, else Hugging Face; the token of HF_TOKEN. Throws before any work where something is missing. */
export function hubPlace(repository: string, { hub_endpoint, private: isPrivate = false }: { hub_endpoint?: string; private?: boolean }): HubPlace {
  if (!/^[\w.-]+\/[\w.-]+$/.test(repository)) throw new CliError(EXIT.usage, 'usage', `${repository} is not the name of a repository of a Hub: write organization/name.`)
  const address = hub_endpoint ?? process.env.HF_ENDPOINT ?? HUGGING_FACE
  const endpoint = URL.canParse(address) ? new URL(address) : null
  if (endpoint === null || !['http:', 'https:'].includes(endpoint.protocol)) throw new CliError(EXIT.usage, 'usage', `The Hub's address ${address} is not an http or https URL.`)
  const token = process.env.HF_TOKEN
  if (!token) throw new CliError(EXIT.authentication, 'no_token', `Pushing to ${endpoint.host} needs a token that may write there, in the environment variable HF_TOKEN.`)
  return { repository, endpoint, token, isPrivate }
}

/** Puts the files of a folder into a repository of a Hub as one commit, and gives its address. Makes the repository where there is none. */
export async function pushToHub(session: Session, folder: string, place: HubPlace): Promise<string> {
  const { repository: name, endpoint, isPrivate } = place
  const hub = { repo: { type: 'model', name }, hubUrl: endpoint.href.replace(/\/$/, ''), fetch: authorized(place) } as const
  const { files } = await publishableFiles(folder)
  const sizes = new Map(files.map(({ path, size }) => [path, size]))
  const total = files.reduce((sum, { size }) => sum + size, 0)
  const progress = startProgress(`Pushing to ${endpoint.host}`, 'bytes', session.quiet)
  try {
    // The token goes along with fetch: the library takes only tokens in Hugging Face's own form.
    await createRepo({ ...hub, accessToken: '', ...(isPrivate && { visibility: 'private' as const }) }).catch((error: unknown) => {
      if (!(error instanceof HubApiError && error.statusCode === 409)) throw error
    })
    const operations = await Promise.all(files.map(async ({ path, absolute }): Promise<CommitOperation> => ({ operation: 'addOrUpdate', path, content: await openAsBlob(absolute) })))
    const parts = new Map<string, number>()
    const commit = commitIter({ ...hub, operations, title: 'Pushed by portllm', abortSignal: session.signal })
    for (;;) {
      const { done, value } = await commit.next()
      if (done) return value?.commit.url ?? `${hub.hubUrl}/${name}`
      if (value.event === 'fileProgress' && value.state === 'uploading') {
        parts.set(value.path, value.progress)
        progress.update([...parts].reduce((sum, [path, part]) => sum + part * (sizes.get(path) ?? 0), 0), total)
      }
    }
  } catch (error) {
    throw session.signal.aborted ? session.signal.reason : explained(error, folder, place)
  } finally {
    progress.stop()
  }
}

/** The token goes to the endpoint alone, not to the storage that it names. */
function authorized({ endpoint, token }: HubPlace): typeof fetch {
  return (input, init) => {
    const headers = new Headers(init?.headers)
    const address = new URL(input instanceof Request ? input.url : input)
    if (address.origin === endpoint.origin) headers.set('Authorization', `Bearer ${token}`)
    return fetch(input, { ...init, headers })
  }
}

function explained(error: unknown, folder: string, { repository, endpoint }: HubPlace): unknown {
  const kept = `The merged model is whole and stays in ${folder}.`
  if (error instanceof HubApiError) {
    const isRefused = error.statusCode === 401 || error.statusCode === 403
    const message = isRefused ? `${endpoint.host} does not let this token (HF_TOKEN) write to ${repository}: ${error.message}` : `${endpoint.host} did not take the push to ${repository}: ${error.message}`
    return new CliError(isRefused ? EXIT.authentication : EXIT.failure, isRefused ? 'not_allowed' : 'push_failed', `${message} ${kept}`, { cause: error })
  }
  if (isNetworkError(error)) {
    return new CliError(EXIT.network, 'network', `${endpoint.host} cannot be reached. ${kept}`, { cause: error })
  }
  return error
}
