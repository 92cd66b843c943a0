// Calls the example's route as Next.js would, and prints what it answers as JSON.
//
//   node ask.mjs TASK '{"session": ..., "body": ..., "type": ..., "hangUp": ms, "waits": options}'
//   node ask.mjs usage '{"who": ..., "query": ...}'
import { SignJWT } from 'jose'

import { POST } from './app/api/ai/[task]/route.js'
import { usageOf } from './lib/ai-gateway.js'

const [what, given] = process.argv.slice(2)
const { session, body = '{}', type = 'application/json', who, query, hangUp, waits } = JSON.parse(given)

// The options of fetch's own connections, such as headersTimeout: minutes are too long for a test.
if (waits) {
  const theirs = Symbol.for('undici.globalDispatcher.1')
  await fetch('data:,') // makes them
  globalThis[theirs] = new globalThis[theirs].constructor(waits)
}

async function ask() {
  const headers = { 'content-type': type }
  if (session) {
    const { secret = process.env.JWT_SECRET, ...claims } = session
    const token = new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).setExpirationTime('1h')
    headers.cookie = `theme=dark; session=${await token.sign(new TextEncoder().encode(secret))}`
  }
  const signal = hangUp ? AbortSignal.timeout(hangUp) : undefined
  const request = new Request(`http://app.test/api/ai/${what}`, { method: 'POST', headers, body, signal })
  const answer = await POST(request, { params: Promise.resolve({ task: what }) })
  return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.json() }
}

try {
  console.log(JSON.stringify(what === 'usage' ? await usageOf(who, query) : await ask()))
} catch (error) {
  console.log(JSON.stringify({ thrown: error.name, message: error.message }))
}
