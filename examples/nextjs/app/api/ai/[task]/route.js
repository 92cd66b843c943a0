// POST /api/ai/text-to-image and the other four: the browser's request, in the name of the tenant who is signed in.
import { GatewayBrokeOffError, GatewayUnreachableError, TASKS, callGateway, gatewayIsOn } from '../../../../lib/ai-gateway.js'
import { otherProvider } from '../../../../lib/other-provider.js'
import { sessionOf } from '../../../../lib/session.js'

const FROM_BROWSER = ['content-type', 'accept']
const TO_BROWSER = [
  'content-type', 'x-request-id', 'retry-after', 'x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset',
]

export async function POST(request, { params }) {
  const { task } = await params
  if (!TASKS.includes(task)) return problem(404, `There is no ${task}.`)
  const who = await sessionOf(request)
  if (!who) return problem(401, 'Sign in first.')
  const headers = only(FROM_BROWSER, request.headers)
  const body = await request.arrayBuffer() // held whole, because the other provider may need it too
  if (gatewayIsOn()) {
    try {
      return passOn(await callGateway(`/api/${task}`, who, { method: 'POST', headers, body, signal: request.signal }))
    } catch (error) {
      if (!(error instanceof GatewayUnreachableError || error instanceof GatewayBrokeOffError)) throw error
      console.error(error)
      // No other provider then: it would compute, and bill, what the gateway may have done already.
      if (error instanceof GatewayBrokeOffError) return problem(502, 'The answer got lost. Try again later.')
    }
  }
  return otherProvider ? otherProvider(task, body, headers, who) : problem(503, 'AI is not available at the moment.')
}

/** The gateway's answer as it comes; images and sound are not held back until they are complete. */
function passOn(answer) {
  if (answer.status === 401) {
    // Not the user's fault: the two disagree about JWT_SECRET, or about the time.
    console.error(`the gateway refused the token (request ${answer.headers.get('x-request-id')})`)
    return problem(502, 'AI is not available at the moment.')
  }
  return new Response(answer.body, { status: answer.status, headers: only(TO_BROWSER, answer.headers) })
}

function only(names, headers) {
  return Object.fromEntries(names.filter((name) => headers.has(name)).map((name) => [name, headers.get(name)]))
}

function problem(status, error) {
  return Response.json({ error }, { status })
}
