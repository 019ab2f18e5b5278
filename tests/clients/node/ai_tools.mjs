import { isStepCount, streamText, generateText, tool } from 'ai';
import { z } from 'zod';
import { MODEL, given, hub, print } from './ai_client.mjs';

const asked = [];
const settings = {
  model: hub.chatModel(MODEL),
  prompt: 'What is the weather in Oslo?',
  stopWhen: isStepCount(2),
  tools: {
    weather: tool({
      description: 'The weather of a city',
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => {
        asked.push(city);
        return 'rain';
      },
    }),
  },
};
const answer = given.stream ? streamText(settings) : await generateText(settings);

print({ text: await answer.text, steps: (await answer.steps).length, asked });
