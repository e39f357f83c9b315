import published from './transfer-calibration.json' with { type: 'json' }
import type { Calibration } from './transfer.ts'

/** Of this version of the program: written by `npm run reproduce -- --publish`. */
export const CALIBRATION = published as Calibration
