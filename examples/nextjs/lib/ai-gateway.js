// The gateway, for the server side of the application: the secret must never reach a browser.
import { SignJWT } from 'jose'

import { secret } from './secret.js'

export const TASKS = ['text-to-image', 'text-to-speech', 'speech-to-text', 'image-to-image', 'image-to-text']

/** There was no connection to the gateway, so nothing was computed or counted. */
export class GatewayUnreachableError extends Error {}

/** The gateway was reached and gave no answer: the request may have been computed and counted, or may still be. */
export class GatewayBrokeOffError extends Error {}

export const gatewayIsOn = () => process.env.USE_AI_GATEWAY === 'true'

/** A token for one call. It names the tenant, whose limits and usage it counts for, and the user, for the records. */
async function tokenFor({ tenantId, userId }) {
  const token = new SignJWT({ tenantId }).setProtectedHeader({ alg: 'HS256' }).setIssuedAt().setExpirationTime('2m')
  if (userId) token.setSubject(userId)
  return token.sign(secret())
}

/**
 * Calls the gateway.
 *
 * @param path such as /api/text-to-image
 * @param who { tenantId, userId }
 * @param options as of fetch
 * @returns the gateway's Response, whatever its status
 * @throws GatewayUnreachableError, GatewayBrokeOffError; what fetch throws where options.signal ended it
 */
export async function callGateway(path, who, { headers, ...options } = {}) {
  const authorization = `Bearer ${await tokenFor(who)}`
  try {
    return await fetch(new URL(path, process.env.AI_GATEWAY_URL), { ...options, headers: { ...headers, authorization } })
  } catch (error) {
    if (options.signal?.aborted) throw error
    const cause = { cause: error }
    if (nothingWasSent(error)) throw new GatewayUnreachableError(`${process.env.AI_GATEWAY_URL} cannot be reached`, cause)
    throw new GatewayBrokeOffError(`${process.env.AI_GATEWAY_URL} did not answer to the end`, cause)
  }
}

/**
 * Whether fetch failed before there was a connection: no such name, refused, no route, or no answer to that. A reset
 * (ECONNRESET, UND_ERR_SOCKET) or a timeout for headers comes later, when the request may be in work.
 */
function nothingWasSent({ cause }) {
  const failures = cause?.errors?.length ? cause.errors : [cause] // of several addresses, one each
  return failures.every(
    (one) => ['getaddrinfo', 'connect'].includes(one?.syscall) || one?.code === 'UND_ERR_CONNECT_TIMEOUT',
  )
}

/** A tenant's usage; query as the gateway takes it, for example { from: '2026-11-01', group_by: 'service,day' }. */
export async function usageOf(who, query = {}) {
  const answer = await callGateway(`/api/usage?${new URLSearchParams(query)}`, who)
  const body = await answer.json()
  if (!answer.ok) throw new Error(`usage: ${body.error}`)
  return body
}
