import { ASK, openai, print } from './openai_client.mjs';

const { data, response } = await openai().chat.completions.create(ASK).withResponse();

print({
  model: data.model,
  content: data.choices[0].message.content,
  finish_reason: data.choices[0].finish_reason,
  usage: data.usage,
  request_id: data._request_id,
  headers: Object.fromEntries(response.headers),
});
