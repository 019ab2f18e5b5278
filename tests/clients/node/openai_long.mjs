// What calls with a very long prompt raise, one after the other. Given: `options` of the client.
import { MODEL, given, openai, print } from './openai_client.mjs';

const LETTERS = 15_000_000; // more than what sockets hold when nobody reads it
const CALLS = 5;

const client = openai({ maxRetries: 0, ...given.options });
const messages = [{ role: 'user', content: 'x'.repeat(LETTERS) }];
const raised = [];
for (let call = 0; call < CALLS; call += 1) {
  raised.push(await client.chat.completions.create({ model: MODEL, messages }).catch((error) => error.message));
}

print(raised);
