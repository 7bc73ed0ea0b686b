// Run once by MongoDB's container, when its volume is empty: the user that trackers are, with rights to one database.
db.getSiblingDB("lezea").createUser({
  user: "lezea",
  pwd: process.env.LEZEA_MONGODB_PASSWORD,
  roles: [{ role: "readWrite", db: "lezea" }],
});
