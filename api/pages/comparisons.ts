import { html, raw } from 'hono/html'
import { comparisonPicture } from '../../patch/comparison-picture.ts'
import type { Comparison } from '../../patch/comparison.ts'
import type { Html } from './layout.ts'

/** Ported patches beside base, target and patches trained on the target, as pictures; nothing where nothing was measured. */
export function comparisonSection(comparisons: readonly Comparison[]): Html {
  if (comparisons.length === 0) return html``
  return html`<h2>Evaluations</h2>
    <p class="dim">Measured with lm-eval; the whiskers are one standard error. Only scores of the same version of a task, with the same questions, stand side by side.</p>
    ${comparisons.map((comparison) => html`<figure class="scroll">${raw(comparisonPicture(comparison))}</figure>`)}`
}
