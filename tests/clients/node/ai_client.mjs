// The AI SDK's provider for hubs like this one; the two options tell what every OpenAI-like server can do.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { BASE_URL, KEY } from './script.mjs';

export { MODEL, given, print } from './script.mjs';

export const hub = createOpenAICompatible({
  name: 'hub',
  baseURL: BASE_URL,
  apiKey: KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
