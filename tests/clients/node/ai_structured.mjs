import { Output, generateText } from 'ai';
import { z } from 'zod';
import { MODEL, hub, print } from './ai_client.mjs';

const { output } = await generateText({
  model: hub.chatModel(MODEL),
  output: Output.object({ schema: z.object({ name: z.string(), age: z.number() }) }),
  prompt: 'Who wrote the first program?',
});

print(output);
