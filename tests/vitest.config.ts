import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * `unit`: pure and fast, beside the code. `integration`: servers, processes, Python, under tests/.
 * `server`: the contract tests once more, on a real PostgreSQL and a real S3, and what only that deployment has.
 * `edge`: the same through the Worker in workerd, and what only that deployment has.
 */
export default defineConfig({
  test: {
    root,
    projects: [
      {
        test: {
          name: 'unit',
          root,
          include: ['{patch,db,api,cli,gpu-runner,bench}/**/*.test.ts'],
          testTimeout: 20_000,
        },
      },
      {
        test: {
          name: 'integration',
          root,
          // Test files run beside each other, and PyTorch's threads would spin while they wait for a processor.
          env: { OMP_WAIT_POLICY: 'PASSIVE' },
          include: ['tests/**/*.test.ts'],
          exclude: ['tests/s3/**', 'tests/edge/**'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          pool: 'forks',
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: 'server',
          root,
          include: ['tests/contract/**/*.test.ts', 'tests/s3/**/*.test.ts'],
          globalSetup: ['tests/setup/server-deployment.ts'],
          env: { PORTLLM_TEST_DEPLOYMENT: 'server' },
          testTimeout: 120_000,
          hookTimeout: 120_000,
          pool: 'forks',
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: 'edge',
          root,
          include: ['tests/contract/**/*.test.ts', 'tests/edge/**/*.test.ts'],
          // Programs on Node and services called in the test's own process: `server` has them on the same database and store.
          // Merging on read: no Worker does it, and tests/edge/storage.test.ts says what it answers instead.
          exclude: ['tests/contract/{admin-token,garbage,restart,scrub,storage}.test.ts'],
          globalSetup: ['tests/setup/server-deployment.ts', 'tests/setup/edge-deployment.ts'],
          env: { PORTLLM_TEST_DEPLOYMENT: 'edge' },
          testTimeout: 120_000,
          hookTimeout: 120_000,
          pool: 'forks',
          maxWorkers: 2,
        },
      },
    ],
  },
})
