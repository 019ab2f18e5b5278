// What a call raises. Given: `options` of the client and `fields` of the request.
import OpenAI from 'openai';
import { ASK, given, openai, print } from './openai_client.mjs';

const CLASSES = Object.entries(OpenAI).filter(([, value]) => value?.prototype instanceof OpenAI.APIError);
const { options, fields } = given;
const seen = [];

try {
  const answer = await openai(options).chat.completions.create({ ...ASK, ...fields });
  if (fields.stream) {
    for await (const chunk of answer) seen.push(chunk.choices[0]?.delta.content);
  }
  print({ raised: null, content: answer.choices?.[0].message.content });
} catch (error) {
  print({
    raised: CLASSES.find(([, kind]) => error.constructor === kind)?.[0] ?? error.constructor.name,
    is_api_error: error instanceof OpenAI.APIError,
    status: error.status,
    code: error.code,
    type: error.type,
    param: error.param,
    message: error.message,
    request_id: error.requestID,
    retry_after: error.headers?.get('retry-after'),
    seen,
  });
}
