#!/usr/bin/env node
import { join } from 'node:path'
import { runMain } from '../cli/run-main.js'

await runMain(join(import.meta.dirname, 'server.ts'), { detached: true })
