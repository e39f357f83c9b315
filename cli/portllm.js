#!/usr/bin/env node
import { join } from 'node:path'
import { runMain } from './run-main.js'

await runMain(join(import.meta.dirname, 'main.ts'), { detached: false })
