import type { Reason } from './resolution.ts'

/**
 * A reason of laying a patch on the very version that it says it was trained on, for its publisher: to whom that is the
 * base, and who can name another base but chooses no target.
 */
export function aboutOwnBase(reason: Reason): Reason {
  const remedy = reason.remedy?.startsWith('Choose a target') ? 'Name as its base the exact version that it was trained on.' : reason.remedy && inWords(reason.remedy)
  return { ...reason, message: inWords(reason.message), ...(remedy === undefined ? {} : { remedy }) }
}

function inWords(text: string): string {
  return text.replace(/\b(the|a) target\b/gi, '$1 base')
}
