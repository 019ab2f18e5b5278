import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { ASK, openai, print } from './openai_client.mjs';

const Person = z.object({ name: z.string(), age: z.number() });
const answer = await openai().chat.completions.parse({
  ...ASK,
  response_format: zodResponseFormat(Person, 'person'),
});

print(answer.choices[0].message.parsed);
