// What every script here has in common: a JSON object as its argument, one line of JSON as its word.
export const MODEL = 'm';
export const { BASE_URL, KEY } = process.env;

export const given = JSON.parse(process.argv[2] ?? '{}');

export const print = (said) => console.log(JSON.stringify(said));
