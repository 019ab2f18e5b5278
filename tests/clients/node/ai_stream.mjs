import { streamText } from 'ai';
import { MODEL, hub, print } from './ai_client.mjs';

const raised = [];
const answer = streamText({
  model: hub.chatModel(MODEL),
  prompt: 'Hello',
  onError: ({ error }) => raised.push(error?.message ?? error),
});
let text = '';
for await (const piece of answer.textStream) text += piece;

print({ text, raised, finish_reason: await answer.finishReason, usage: await answer.usage });
