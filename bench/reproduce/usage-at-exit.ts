/** Loaded before a program (`node --import`): notes what the process took, as its last act, in the file that PORTLLM_USAGE names. */
import { writeFileSync } from 'node:fs'

const path = process.env.PORTLLM_USAGE
if (path !== undefined) {
  process.on('exit', () => {
    const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage()
    writeFileSync(path, JSON.stringify({ peak_memory_bytes: maxRSS * 1024, device_seconds: (userCPUTime + systemCPUTime) / 1e6 }))
  })
}
