// openai-node as it comes: nothing set but where it calls, and the key.
import OpenAI from 'openai';
import { BASE_URL, KEY, MODEL } from './script.mjs';

export { MODEL, given, print } from './script.mjs';

export const ASK = { model: MODEL, messages: [{ role: 'user', content: 'Hello' }] };

export const openai = (options = {}) => new OpenAI({ baseURL: BASE_URL, apiKey: KEY, ...options });
