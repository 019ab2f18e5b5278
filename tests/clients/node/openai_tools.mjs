import { ASK, openai, print } from './openai_client.mjs';

const asked = [];
const weather = {
  type: 'function',
  function: {
    name: 'weather',
    description: 'The weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    parse: JSON.parse,
    function: ({ city }) => {
      asked.push(city);
      return 'rain';
    },
  },
};

const runner = openai().chat.completions.runTools({ ...ASK, tools: [weather] });

print({ content: await runner.finalContent(), asked });
