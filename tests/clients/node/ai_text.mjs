import { generateText } from 'ai';
import { MODEL, hub, print } from './ai_client.mjs';

const { text, finishReason, usage, response } = await generateText({
  model: hub.chatModel(MODEL),
  system: 'Be brief.',
  prompt: 'Hello',
});

print({ text, finish_reason: finishReason, usage, model: response.modelId, headers: response.headers });
