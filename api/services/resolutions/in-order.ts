/** Works on all at once; where several fail, the first of them in their order is what is thrown. */
export async function inOrder<In, Out>(all: readonly In[], work: (one: In) => Promise<Out>): Promise<Out[]> {
  const settled = await Promise.allSettled(all.map(work))
  return settled.map((one) => {
    if (one.status === 'rejected') throw one.reason
    return one.value
  })
}
