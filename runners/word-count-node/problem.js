// Errors over HTTP: application/problem+json (RFC 9457) with a stable code and a sentence that says what to do.

const TITLES = {
  400: "Bad Request",
  401: "Unauthorized",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  422: "Unprocessable Content",
  429: "Too Many Requests",
  500: "Failed",
  503: "Service Unavailable",
};

export class Problem extends Error {
  constructor(status, code, detail, { headers = {}, more = {} } = {}) {
    super(detail);
    this.status = status;
    this.headers = { ...headers, "Content-Type": "application/problem+json" };
    this.body = { type: "about:blank", title: TITLES[status], status, code, detail, ...more };
  }
}
