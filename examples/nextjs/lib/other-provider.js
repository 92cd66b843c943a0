/**
 * What the application did before it had the gateway: async (task, body, headers, who) => Response. It is called while
 * USE_AI_GATEWAY is not true, and when there is no connection to the gateway. Null: there is nothing else.
 */
export const otherProvider = null
