/** `node infra/healthy.ts URL`: ends with 0 where it answers with success, for the health checks of containers. */
const answer = await fetch(process.argv[2]!, { signal: AbortSignal.timeout(4_000) }).catch(() => null)
process.exit(answer?.ok ? 0 : 1)
